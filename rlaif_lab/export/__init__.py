"""What a run hands on to other tools: its preferences as data sets, its policy with a model card."""

from __future__ import annotations

from pathlib import Path


def export_run(run_directory: Path) -> Path:
    """Write ``run_directory``/export/ (data sets and their card) and, where the run has saved its policy, the model
    card with the curve beside it. Can be called again and again. Returns the export folder.

    Raises ValueError where the folder holds no run or no round with generations, or the disk takes no write.
    """
    from rlaif_lab.export.card import write_model_card
    from rlaif_lab.export.dataset_card import write_dataset_card
    from rlaif_lab.export.preferences import export_preferences

    folder = export_preferences(run_directory)
    write_dataset_card(run_directory)
    if (run_directory / "policy" / "config.json").is_file():
        write_model_card(run_directory)
    return folder
