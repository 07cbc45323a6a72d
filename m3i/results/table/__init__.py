"""Every judgement of a run or a sweep as one table, for pandas, R or a spreadsheet (docs/results.md).

`write_judgements` reads the `result.json` files below a folder and writes `results.parquet` and `results.csv`.
The columns, with what each means, are in columns.py; how text gets into a CSV file, in cells.py.
"""

from m3i.results.table.columns import COLUMNS, TEXTS, Column, Kind, column_table
from m3i.results.table.write import write_judgements

__all__ = ["COLUMNS", "TEXTS", "Column", "Kind", "column_table", "write_judgements"]
