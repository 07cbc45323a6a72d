"""`m3i version`: prints versions."""


def version_command(arguments: list[str]) -> None:
    """m3i version: prints the versions of m3i and of the libraries it is built on."""
    from m3i.component import library_version

    for name in ("m3i", "torch", "transformers", "peft", "trl", "llama-cpp-python", "hydra-core"):
        print(f"{name} {library_version(name)}")
