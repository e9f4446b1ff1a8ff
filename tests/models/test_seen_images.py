"""Which images a model has seen, by their pixels."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from hemalum.models.card import Training, TrainingSet
from hemalum.models.model import load_model, shipped_models
from hemalum.models.seen_images import Packed, SeenImages, SetKey, pack_images, unpack

HASHES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(8)]


def training(*sets: TrainingSet, initial: Training | None = None) -> Training:
    return Training(
        recipe="r", recipe_hash="0", command="hemalum train", steps=1, seed=0, date="2026-11-20", data=list(sets),
        initial=initial,
    )  # fmt: skip


def used(name: str, **images: str) -> TrainingSet:
    return TrainingSet(name=name, license="", split_hash="s", samples=1, **images)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 255)))
def test_hashes_come_back(numbers: set[int]) -> None:
    hashes = [hashlib.sha256(bytes([number])).hexdigest() for number in numbers]
    packed = pack_images(hashes)
    assert unpack(packed) == {bytes.fromhex(one)[:6] for one in hashes}
    assert len(packed) == 8 * len(hashes)


def test_earlier_trainings_count_and_learned_from_goes_before_chosen_by() -> None:
    first = training(used("a", images=pack_images(HASHES[:2]), validated=pack_images(HASHES[2:3])))
    seen = SeenImages.of(training(used("b", images=pack_images(HASHES[2:4]), validated=""), initial=first))
    assert [seen.use_of(one) for one in HASHES[:5]] == ["trained"] * 4 + [None]
    assert SeenImages.of(first).use_of(HASHES[2]) == "validated"
    assert seen.unrecorded == ()


def test_sets_without_hashes_are_named_unless_they_are_at_hand() -> None:
    older = training(used("lab"), used("lab"), used("more", images=""))
    assert SeenImages.of(older).unrecorded == ("lab",)
    at_hand = {SetKey("lab", "s"): Packed(pack_images(HASHES[:1]), pack_images(HASHES[1:2]))}
    seen = SeenImages.of(older, at_hand)
    assert (seen.unrecorded, seen.use_of(HASHES[0]), seen.use_of(HASHES[1])) == ((), "trained", "validated")
    assert SeenImages.of(older, {SetKey("lab", "other"): Packed("", "")}).unrecorded == ("lab",)
    assert SeenImages.of(None).unrecorded == ("its training",)


def test_the_images_of_the_shipped_models_are_recorded() -> None:
    for path in shipped_models().values():
        seen = SeenImages.of(load_model(path).card.training)
        assert seen.unrecorded == ()
        assert (len(seen.trained), len(seen.validated)) == (331 + 19 + 464 + 32, 47 + 3 + 68 + 8)


def test_two_trainings_on_one_set_are_joined() -> None:
    first = used("a", images=pack_images(HASHES[:2]), validated=pack_images(HASHES[2:3]))
    joined = first.joined(used("a", images=pack_images(HASHES[1:4]), validated=""))
    assert joined.images == pack_images(HASHES[:4])
    assert joined.validated == first.validated
    assert first.joined(used("a")).images is None
