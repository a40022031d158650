"""What people look at: tables and figures of results."""

from serfast.reports.figures import (
    draw_correlations,
    draw_explanation,
    draw_frames,
    draw_positions,
    draw_voicing,
    save_figure,
)
from serfast.reports.ladder_report import paper
from serfast.reports.paper_table import paper_table, paper_table_remarks, write_paper_table
from serfast.reports.tables import confusion_table, fold_table, prediction_table, score_remarks, score_table

__all__ = [
    "confusion_table",
    "draw_correlations",
    "draw_explanation",
    "draw_frames",
    "draw_positions",
    "draw_voicing",
    "fold_table",
    "paper",
    "paper_table",
    "paper_table_remarks",
    "prediction_table",
    "save_figure",
    "score_remarks",
    "score_table",
    "write_paper_table",
]
