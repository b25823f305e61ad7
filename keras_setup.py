"""Keras, set up once for every room that needs it: `from keras_setup import keras`."""

import os

from shell import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow uses these kernels by itself only on processors with AVX512; others are faster with them too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with quiet():  # TensorFlow's start-up chatter, some of which no setting silences, tells a user nothing
    import keras

__all__ = ["keras"]
