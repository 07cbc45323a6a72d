"""Secrets are taken out of texts in every form they are likely to take, and nothing else is."""

import base64
import json
import logging
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3i.ledger.secrets import (
    LONGEST_MESSAGE,
    holds_secret,
    install_log_redaction,
    message,
    redact,
    redact_values,
)

SECRET = "p/1+é\"\\ '%=&-QwErTy"


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("PLANTED_API_KEY", SECRET)


FORMS = {
    "as it is": SECRET,
    "in an address": quote(SECRET, safe=""),
    "in an address, lower case": quote(SECRET, safe="").replace("%2F", "%2f").replace("%C3%A9", "%c3%a9"),
    "in a path": quote(SECRET),
    "in a form": quote_plus(SECRET),
    "in JSON": json.dumps(SECRET)[1:-1],
    "in JSON with letters as they are": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "in a repr": repr(SECRET)[1:-1],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_variables_value_is_taken_out(form):
    assert redact(f"before {form} after") == "before [PLANTED_API_KEY] after"
    assert holds_secret(f"<{form}>") == "PLANTED_API_KEY"
    assert redact(f"{form}{form}", patterns=False) == "[PLANTED_API_KEY]" * 2


@given(before=st.binary(max_size=7), after=st.binary(max_size=7), coder=st.sampled_from([0, 1]))
def test_a_value_inside_base64_is_taken_out(before, after, coder):
    secret = "0123456789abcdefXYZ"
    encode = (base64.b64encode, base64.urlsafe_b64encode)[coder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTHER_TOKEN", secret)
        text = redact(encode(before + secret.encode() + after).decode())
        assert "[OTHER_TOKEN]" in text
        # what is left cannot be decoded to more than the ends of it
        assert len(text.replace("[OTHER_TOKEN]", "")) <= (len(before) + len(after) + 6) * 4 / 3 + 4


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("OPENAI_API_KEY", "abcdefgh", True),
        ("openai_api_key", "abcdefgh", True),
        ("ANTHROPIC_AUTH_TOKEN", "abcdefgh", True),
        ("AWS_SECRET_ACCESS_KEY", "abcdefgh", True),
        ("AWS_ACCESS_KEY_ID", "abcdefgh", True),
        ("DB_PASSWORD", "abcdefgh", True),
        ("OPENAI_API_KEY_2", "abcdefgh", True),
        ("OPENAI_API_KEY", "abcdefg", False),  # too short
        ("HOME_KEYBOARD", "abcdefgh", False),
        ("TOKENIZERS_PARALLELISM", "abcdefgh", False),
        ("SSH_AUTH_SOCK", "abcdefgh", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", __file__, False),  # a file's name
        ("GOOGLE_APPLICATION_CREDENTIALS", '{"private_key": "abcdefgh"}', True),
    ],
)
def test_which_variables_hold_a_secret(monkeypatch, name, value, secret):
    monkeypatch.setenv(name, value)
    assert redact(f"<{value}>") == (f"<[{name}]>" if secret else f"<{value}>")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("bad key sk-ant-api03-AbC_123-xyz!", "bad key [redacted]!"),
        ("Incorrect API key provided: sk-proj-ABCDEFGHIJKLMNOP.", "Incorrect API key provided: [redacted]."),
        ("key AIzaSyA-1234567890_abcdefg not valid", "key [redacted] not valid"),
        ("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer [redacted]"),
        ("'authorization': 'Basic dXNlcjpwYXNzd29yZA=='", "'authorization': 'Basic [redacted]'"),
        ('{"x-api-key": "0123456789"}', '{"x-api-key": "[redacted]"}'),
        ("x-goog-api-key: b'0123456789'", "x-goog-api-key: b'[redacted]'"),
        ("GET /v1?alt=sse&key=0123456789ab&x=1", "GET /v1?alt=sse&key=[redacted]&x=1"),
        ("https://user:hunter2@host/path", "https://user:[redacted]@host/path"),
    ],
)
def test_what_looks_like_a_key_is_taken_out_of_messages(text, clean):
    assert redact(text) == clean
    assert redact(clean) == clean
    assert holds_secret(text)
    assert holds_secret(clean) is None
    assert redact(text, patterns=False) == text


@pytest.mark.parametrize(
    "text",
    [
        "The bearer of bad news; 17 + 25 = 42. Is the key=value pair right? sk-1, risk-free",
        "https://api.anthropic.com/v1/messages?beta=true returned 529: Overloaded (request_id req_011CS)",
        "http://127.0.0.1:8080/v1/chat/completions: timed out after 180 s",
        "observer.claude: 3 of 116 traces; max_tokens=1024 tokens: 2048",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact(text) == text
    assert holds_secret(text) is None


def test_json_values_stay_json():
    value = {"a": [SECRET, 1, None, True, {SECRET: "x-api-key: 0123456789"}], "b": 0.5}
    clean = redact_values(value)
    assert clean == {
        "a": ["[PLANTED_API_KEY]", 1, None, True, {"[PLANTED_API_KEY]": "x-api-key: [redacted]"}],
        "b": 0.5,
    }


def test_messages_are_not_endless_and_can_be_written():
    text = message("\ud800" + "x" * 10**6)
    assert len(text) < LONGEST_MESSAGE + 100
    text.encode()


def logged(logger, *arguments, **options):
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Lines()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        logger.debug(*arguments, **options)
    finally:
        logger.removeHandler(handler)
    return lines[0]


def test_no_log_record_holds_a_secret():
    before = logging.getLogRecordFactory()
    try:
        install_log_redaction()
        install_log_redaction()
        logger = logging.getLogger("m3i.test.secrets")
        assert logged(logger, "headers %s and %d", {"x-api-key": SECRET}, 7).endswith("and 7")
        try:
            raise ValueError(f"failed with {SECRET}")
        except ValueError:
            text = logged(logger, "it failed", exc_info=True)
        assert "ValueError: failed with [PLANTED_API_KEY]" in text
        assert SECRET not in text
        assert logged(logger, "plain %s", "text") == "plain text"
        assert SECRET not in logged(logger, f"wrong %s %s {SECRET}", "arguments")
    finally:
        logging.setLogRecordFactory(before)
