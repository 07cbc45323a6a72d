"""Keys that the tests plant in the environment of runs: none of them may be anywhere else."""

KEY = "sk-ant-api03-planted/Key+9=" + "Zq7" * 8
"""Of every provider here; its URL-encoded form differs from the plain one."""
OTHERS = {
    "HF_TOKEN": "hf_planted" + "Wm4" * 9,
    "AWS_SECRET_ACCESS_KEY": "planted/aws+" + "Rt2" * 9,
    "MISTRAL_API_KEY": "planted~mistral$" + "Bn8" * 9,
    "DATABASE_PASSWORD": "planted p&ss? <word>" + "Hk5" * 5,
}
SECRETS = [KEY, *OTHERS.values()]
