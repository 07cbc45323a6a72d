"""One step that would settle a question."""


def step(title: str, text: str, command: str = "") -> dict[str, str]:
    """The step as it stands in the result; `command` is empty where one command does not do it."""
    return {"title": title, "text": text, "command": command}
