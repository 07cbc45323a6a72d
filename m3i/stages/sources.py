"""Libraries, and modules of the core, that the keys of several stages hold."""

TORCH = ("torch", "transformers", "tokenizers")
RUNTIME = ("llamacpp", "llamacpp_worker", "llamacpp_sampling", "llamacpp_wire")
"""Modules of the core that run llama.cpp."""
LANGUAGE_MODELS = (
    "llm.audit",
    "llm.calls",
    "llm.digest",
    "llm.fields",
    "llm.judge",
    "llm.models",
    "llm.observer",
    "llm.panel",
    "llm.remote",
    "llm.request",
    "llm.retry_after",
    "llm.schema",
    "llm.sdk",
    "llm.text_model",
    "llm.verdict",
)
"""Modules of the core that observers and judges with a language model stand on."""
