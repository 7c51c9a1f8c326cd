"""Augmentation inside the compiled step: pure functions of (key, images, strengths)."""

import jax
import jax.numpy as jnp


def augment_images(
    key: jax.Array,
    images: jax.Array,
    *,
    shift_pixels: jax.Array | float = 0.0,
    flip_probability: jax.Array | float = 0.0,
    noise_std: jax.Array | float = 0.0,
) -> jax.Array:
    """Shifts, mirrors and adds noise to each image of a batch on its own.

    Args:
        key: the step's random key.
        images: float, [batch, height, width, channels].
        shift_pixels: the largest shift in each direction; what moves in is zero.
        flip_probability: how often an image is mirrored left to right.
        noise_std: the standard deviation of Gaussian noise, in the images' own unit.

    Returns:
        Images of the same shape and type.
    """

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        shift_key, flip_key, noise_key = jax.random.split(key, 3)
        limit = jnp.asarray(shift_pixels, jnp.int32)
        rows, columns = jax.random.randint(shift_key, (2,), -limit, limit + 1)
        image = _shift(_shift(image, rows, axis=0), columns, axis=1)
        flip = jax.random.bernoulli(flip_key, flip_probability)
        image = jnp.where(flip, image[:, ::-1], image)
        return image + noise_std * jax.random.normal(noise_key, image.shape, image.dtype)

    return jax.vmap(augment)(jax.random.split(key, len(images)), images)


def _shift(image: jax.Array, pixels: jax.Array, axis: int) -> jax.Array:
    source = jnp.arange(image.shape[axis]) - pixels
    # Negative indices would wrap around; an index past the end is filled like any other.
    source = jnp.where(source < 0, image.shape[axis], source)
    return jnp.take(image, source, axis=axis, mode="fill", fill_value=0)
