"""A model's ONNX graph on ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from mian.scoring.one_user_encoder import Columns
from mian.scoring.servable_files import GRAPH_FILE, MODEL_FILE, ServableError, read_description

#: The graph's output, and what the names of inputs that are the user's begin with; the others are columns of candidates and context.
OUTPUT, USER_INPUTS = "probability", "user."
#: The graph's property that says of which weights it was made, see :class:`mian.scoring.servable_files.ModelDescription`.
WEIGHTS_KEY = "weights_sha256"


class OnnxScorer:
    """A :class:`mian.scoring.scorer.CandidateScorer` on the graph that :func:`mian.serving.onnx_export.export_onnx` wrote.

    Args:
        folder: a servable folder with ``model.onnx``.
        threads: compute threads of one call.

    Raises:
        ServableError: there is no graph, it cannot be read, or it was made of other weights than those of the folder.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        path = folder / GRAPH_FILE
        if not path.exists():
            raise ServableError(f"{path}: no such file; make it with jobs/export.py --to onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has many, of no common base
            raise ServableError(f"{path}: cannot be read ({error}); make it anew with jobs/export.py --to onnx") from error
        made_of = self._session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY, "")
        if (folder / MODEL_FILE).exists() and made_of != read_description(folder).weights_sha256:
            raise ServableError(f"{path}: made of other weights than those beside it; make it anew with jobs/export.py --to onnx")
        self._inputs = [put.name for put in self._session.get_inputs()]

    def score(self, user: Columns, candidates: Columns) -> npt.NDArray[np.float64]:
        """See :meth:`mian.scoring.scorer.CandidateScorer.score`."""
        count = len(next(iter(candidates.values())))
        feeds = {}
        for name in self._inputs:
            if name.startswith(USER_INPUTS):
                feeds[name] = user[name.removeprefix(USER_INPUTS)]
            else:
                column = candidates.get(name)
                feeds[name] = user[name].repeat(count) if column is None else column  # the context, where it is the user's
        (probabilities,) = self._session.run([OUTPUT], feeds)
        scores: npt.NDArray[np.float64] = probabilities.astype(np.float64)
        return scores
