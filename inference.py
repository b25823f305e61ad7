"""Images → probabilities: a network's answer, by Keras or by ONNX Runtime, which starts in a tenth of a second."""

import os

import numpy as np

BATCH = 16  # images per forward pass; 32 is no faster on a CPU and takes 0.3 GB more


class Onnx:
    """A network in the ONNX format, which answers as a Keras model does but can do nothing else."""

    def __init__(self, content):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # as LightGBM does; 0: all cores
        options.log_severity_level = 4  # it refuses by an exception, and warns in colours
        # Without a fallback, which prints why it was needed and tries the same again.
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )

    def predict_on_batch(self, images):
        """Probabilities (n, 4) for images (n, frequencies, frames), float32."""
        (given,) = self.session.get_inputs()
        return self.session.run(None, {given.name: images})[0]


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
