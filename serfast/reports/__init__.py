"""What people look at: tables of results."""

from serfast.reports.paper_table import paper_table, paper_table_remarks, write_paper_table
from serfast.reports.tables import confusion_table, fold_table, prediction_table, score_remarks, score_table

__all__ = [
    "confusion_table",
    "fold_table",
    "paper_table",
    "paper_table_remarks",
    "prediction_table",
    "score_remarks",
    "score_table",
    "write_paper_table",
]
