import jax
import jax.numpy as jnp
import numpy as np

from budgetflow.engine.data.augment import augment_images

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (64, 6, 5, 2)), jnp.float32)
augment = jax.jit(augment_images)


def test_no_strength_changes_nothing():
    assert (augment(jax.random.key(0), IMAGES) == IMAGES).all()


def test_shifts_move_each_image_on_its_own_and_fill_with_zero():
    shifted = np.asarray(augment(jax.random.key(0), IMAGES, shift_pixels=1.0))
    seen = set()
    for before, after in zip(np.asarray(IMAGES), shifted, strict=True):
        padded = np.pad(before, ((1, 1), (1, 1), (0, 0)))
        places = [
            (dy, dx)
            for dy in range(3)
            for dx in range(3)
            if (padded[dy : dy + 6, dx : dx + 5] == after).all()
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_flips_mirror_the_share_asked_for():
    flipped = augment(jax.random.key(1), IMAGES, flip_probability=0.5)
    mirrored = (flipped == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (flipped == IMAGES).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 16 < mirrored.sum() < 48


def test_noise_has_the_deviation_asked_for():
    noise = augment(jax.random.key(2), IMAGES, noise_std=0.1) - IMAGES
    assert 0.09 < noise.std() < 0.11
    assert abs(noise.mean()) < 0.01


def test_the_key_decides():
    strengths = {"shift_pixels": 2.0, "flip_probability": 0.5, "noise_std": 0.1}
    first = augment(jax.random.key(3), IMAGES, **strengths)
    assert (first == augment(jax.random.key(3), IMAGES, **strengths)).all()
    assert (first != augment(jax.random.key(4), IMAGES, **strengths)).any()
