"""What acme's components refuse and accept: `m3i check-plugin acme-m3i` and a test of its own read this table."""

from m3i.contract import Case

CASES = {
    "observer/acme": Case(bad={"threshold": [0.0, 1.0]}),
    "attributor/acme": Case(),
    "selector/acme": Case(bad={"k": [0, -1]}),
}
