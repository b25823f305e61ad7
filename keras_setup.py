"""Keras, set up once for every room that needs it: `from keras_setup import keras`."""

import logging
import os

from shell import UserError, quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow uses these kernels by itself only on processors with AVX512; others are faster with them too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with quiet():  # TensorFlow's start-up chatter, some of which no setting silences, tells a user nothing
    try:
        import keras
    except (ImportError, ValueError) as error:
        if getattr(error, "name", None) == "keras":
            raise
        backend = os.environ.get("KERAS_BACKEND", "of Keras's settings")
        raise UserError(
            f"the backend {backend} cannot be imported ({error}); unset KERAS_BACKEND or install it"
        ) from None
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # whose warnings of functions traced again tell a user nothing
keras.config.set_image_data_format("channels_last")  # which the networks are written for, whatever Keras's settings say

__all__ = ["keras"]
