"""How Lightning writes a checkpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from rlaif_lab.store.checkpoints import prune
from rlaif_lab.store.files import write_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is there whole or not at all, also when the disk fills up while it is written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        # Through a buffer: what a full disk cuts short never has the checkpoint's name.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())
        # After the new one is there whole: at any time there is one to go on from.
        prune(Path(path).parent)
