"""One step that would settle a question."""


def step(title: str, text: str, command: str = "") -> dict[str, str]:
    """The step as stored in the result; `command` is empty where no single command does it."""
    return {"title": title, "text": text, "command": command}
