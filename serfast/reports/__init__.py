"""What people look at: tables of results."""

from serfast.reports.tables import confusion_table, fold_table, prediction_table, score_remarks, score_table

__all__ = ["confusion_table", "fold_table", "prediction_table", "score_remarks", "score_table"]
