"""Images → probabilities: a network's answer, by Keras or by ONNX Runtime, which starts in a tenth of a second."""

import functools
import os
import re

import numpy as np

from recipes import CLASSES
from shell import UserError, shortened

BATCH = 16  # images per forward pass; 32 is no faster on a CPU and takes 0.3 GB more
MOST_MEMORY = 4_000_000_000  # bytes, of all that networks in the ONNX format compute; the shipped one's take 50 million


class Onnx:
    """A network in the ONNX format, which answers as a Keras model does but can do nothing else.

    content: its bytes, for which ONNX Runtime raises what it likes if they are damaged; where: the file's name.
    """

    def __init__(self, content, where="the model"):
        import onnxruntime

        _bound_memory()
        self.where = where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.log_severity_level = 4  # it refuses by an exception, and warns in colours
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Constants would be computed at once, without the bound; those of our networks are when they are exported.
        # Without a fallback, which prints why it was needed and tries the same again.
        self.session = onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"],
            enable_fallback=0,
        )
        (self.given,) = self.session.get_inputs()

    def predict_on_batch(self, images):
        """Probabilities (n, 4) for images (n, frequencies, frames), float32. Raises `UserError` if it has none."""
        try:
            (answers,) = self.session.run(None, {self.given.name: images})
            if answers.shape != (len(images), len(CLASSES)):
                raise ValueError(f"it does not answer with {len(CLASSES)} numbers for each")
        except Exception as error:  # whatever a foreign network may cause
            told = shortened(str(error).rpartition(") ")[2], 120)  # without the place in ONNX Runtime's source
            raise UserError(
                f"{self.where} has a network that cannot answer ({told}); do not trust it, and name another"
            ) from error
        return answers


def _threads():
    """How many threads OMP_NUM_THREADS asks for, as LightGBM reads it; 0, all cores, where it asks for none."""
    found = re.match(r"\s*(\d{1,6})\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))  # a number for each level: 4,2
    return int(found[1]) if found else 0


@functools.cache
def _bound_memory():
    """Let ONNX Runtime refuse what takes more than `MOST_MEMORY`."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": MOST_MEMORY}))


def predict(network, inputs, batch_size=BATCH, bar=None):
    """What `network`, a Keras model or an `Onnx`, makes of `inputs`, (n, outputs), a batch at a time.

    inputs: anything with a length that a slice turns into a batch, as an array or `preprocessing.Images`; bar: a
    progress bar that counts them, or None. A short batch is filled up, since each batch size costs Keras a compilation.
    """
    outputs = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        filled = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)])
        outputs.append(network.predict_on_batch(filled)[: len(batch)])
        if bar is not None:
            bar.update(len(batch))
    return np.concatenate(outputs)
