"""Grounding: claims read from every caption of the synthetic grammar, verdicts, thresholds, ontologies, the tagger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmfusion.data.scenes.grammar import WORDS, make_captions, plain_caption
from mmfusion.data.scenes.plan import COLOURS
from mmfusion.language import grounding
from mmfusion.language.grounding import ground, read_claims
from mmfusion.language.ontology import Ontology, read_ontology
from mmfusion.types import InputError

LABELS = tuple(sorted(WORDS))
OWN = Ontology(LABELS)
# Classes as AudioSet writes them, and its hierarchy in small.
CLASSES = [
    {"id": "v", "name": "Vehicle", "child_ids": ["m", "r"]},
    {"id": "m", "name": "Motor vehicle (road)", "child_ids": ["c"]},
    {"id": "c", "name": "Car", "child_ids": []},
    {"id": "r", "name": "Rail transport", "child_ids": ["t"]},
    {"id": "t", "name": "Train", "child_ids": ["w"]},
    {"id": "w", "name": "Train whistle, steam whistle", "child_ids": []},
    {"id": "b", "name": "Bouncing", "child_ids": []},
    {"id": "d", "name": "Dog", "child_ids": ["k"]},
    {"id": "k", "name": "Bark", "child_ids": []},
]
TREE = Ontology(LABELS, CLASSES)


@dataclass(frozen=True)
class Event:
    label: str
    start_s: float
    seen: bool
    heard: bool


def verdicts(caption, heard=(), ontology=OWN, tagger=None):
    chances = {label: 0.9 if label in heard else 0.1 for label in LABELS}
    return {word.word: word.verdict for word in ground(caption, chances, ontology, None, tagger)}


def scenes(count):
    rng = np.random.default_rng(0)
    manners = ((True, True), (True, False), (False, True))
    for _ in range(count):
        labels = rng.choice(LABELS, size=rng.integers(1, 4), replace=False)
        events = [Event(str(label), float(rng.random()), *manners[rng.integers(3)]) for label in labels]
        colours = [str(rng.choice(COLOURS[e.label])) if e.label in COLOURS else None for e in events]
        yield events, make_captions(events, colours, 5, rng)


@pytest.mark.parametrize("ontology", [OWN, TREE], ids=["own", "tree"])
def test_every_claim_of_the_grammar_is_read(ontology):
    """Each event's noun is found with its label, and claims what the event is; sound verbs claim sound."""
    for events, captions in scenes(150):
        for caption in captions:
            found = read_claims(caption, ontology)
            for event in events:
                words = WORDS[event.label]
                mine = [m for m in found if m.meaning and event.label in m.meaning.labels and not m.is_verb]
                noun = next(m for m in mine if m.word in words.nouns)
                told = any(f" {verb}" in caption for verb in words.heard)
                wanted = "silence" if not event.heard else "sounds" if told or not event.seen else "none"
                assert noun.claim == wanted, (caption, noun)
            verbs = [m for m in found if m.is_verb]
            spoken = {verb for event in events if event.heard for verb in WORDS[event.label].heard if verb in caption}
            assert {m.word for m in verbs} == spoken and all(m.claim == "sounds" for m in verbs), caption


def test_a_true_caption_is_never_contradicted():
    for events, captions in scenes(100):
        heard = {event.label for event in events if event.heard}
        for caption in [*captions, plain_caption(events)]:
            assert "contradicted" not in verdicts(caption, heard).values(), caption


def test_the_table_of_verdicts():
    caption = "a red ball bounces while a siren wails off screen"
    assert verdicts(caption, {"siren"}) == {"ball": "silent", "siren": "supported", "wails": "supported"}
    assert verdicts(caption, {"ball"}) == {"ball": "supported", "siren": "contradicted", "wails": "contradicted"}
    assert verdicts("a bell swings silently") == {"bell": "silent"}
    assert verdicts("a bell swings silently", {"bell"}) == {"bell": "contradicted"}
    assert verdicts("a car passes without sound", {"car"}) == {"car": "contradicted"}
    assert verdicts("a man puts a cup on a table") == {"man": "silent", "cup": "silent", "table": "silent"}


def test_who_makes_the_sound():
    assert verdicts("a man rings a bell", {"bell"}) == {"man": "silent", "rings": "supported", "bell": "supported"}
    assert verdicts("a bird hops and chirps", {"bird"}) == {"bird": "supported", "chirps": "supported"}
    assert verdicts("the sound of a chopper", {"helicopter"}) == {"chopper": "supported"}
    assert verdicts("a bell does not ring") == {"bell": "silent", "ring": "silent"}
    assert verdicts("no bell rings", {"bell"}) == {"bell": "contradicted", "rings": "contradicted"}
    # That a woman sings does not mean that a bird does.
    assert verdicts("a woman sings", {"bird"}) == {"woman": "unchecked", "sings": "unchecked"}
    assert verdicts("a bell and a drum beat", {"drum"})["bell"] == "contradicted"


def test_without_sound_nothing_is_checked():
    words = ground("a ball bounces while a siren wails off screen", None, OWN)
    assert [word.verdict for word in words] == ["unchecked"] * 3 and all(word.probability is None for word in words)
    assert ground("", None, OWN) == []


def test_the_hierarchy_goes_down_and_up():
    assert verdicts("a vehicle passes", {"train"}, OWN) == {"vehicle": "silent"}
    assert verdicts("a vehicle passes", {"train"}, TREE) == {"vehicle": "supported"}
    assert verdicts("a steam whistle is heard", {"train"}, TREE) == {"steam whistle": "supported"}
    # The ontology knows the dog, the tagger does not; a ball that bounces is no sound by the name of Bouncing.
    assert verdicts("a dog barks", (), TREE) == {"dog": "unchecked", "barks": "unchecked"}
    assert verdicts("a ball bounces", (), TREE) == {"ball": "silent"}


def test_labels_as_other_sets_write_them():
    ontology = Ontology(("dog_bark", "car_horn", "Chirp, tweet", "Police car (siren)"))
    assert ontology.labels_of("dog") == ("dog_bark",) and ontology.labels_of("barks") == ("dog_bark",)
    assert ontology.labels_of("tweets") == ("Chirp, tweet",) and ontology.labels_of("police car") != ()
    assert ontology.labels_of("siren") == ("Police car (siren)",) and ontology.find(["street"]) is None


def test_audioset_as_it_is(shared_data: Path):
    classes = read_ontology(shared_data / "audioset_labels" / "audioset_ontology.json")
    full, mine = Ontology([one["name"] for one in classes], classes), Ontology(LABELS, classes)
    assert "Church bell" in full.labels_of("bell") and set(mine.labels_of("vehicle")) == {"car", "train", "helicopter"}
    assert mine.labels_of("snare drum") == ("drum",)
    found = {m.word: m.claim for m in read_claims("a man is playing a guitar while a church bell rings", full)}
    assert found == {"man": "none", "guitar": "none", "church bell": "sounds", "rings": "sounds"}


@pytest.mark.parametrize(("text", "what"), [("{", "JSON"), ("[]", "list"), (json.dumps([{"id": "a"}]), "class 0")])
def test_a_broken_ontology_is_named(tmp_path: Path, text: str, what: str):
    (tmp_path / "o.json").write_text(text)
    with pytest.raises(InputError, match=what):
        read_ontology(tmp_path / "o.json")
    with pytest.raises(InputError, match="no such"):
        read_ontology(tmp_path / "none.json")


def test_nltk_tags_are_used_where_its_data_lie(monkeypatch: pytest.MonkeyPatch):
    """A tagger knows that in "they train" there is no train; the lexicon alone does not."""
    import nltk

    tags = {"train": "VBP", "bell": "NN", "rings": "VBZ"}
    monkeypatch.setattr(nltk, "pos_tag", lambda words: [(word, tags.get(word, "DT")) for word in words])
    grounding.word_tagger.cache_clear()
    try:
        tagger, how = grounding.word_tagger()
    finally:
        grounding.word_tagger.cache_clear()
    assert tagger is not None and "nltk" in how
    caption = "they train while a bell rings"
    assert verdicts(caption, {"bell"}, OWN, tagger) == {"bell": "supported", "rings": "supported"}
    assert "train" in verdicts(caption, {"bell"})


def test_without_nltks_data_it_is_said(monkeypatch: pytest.MonkeyPatch):
    import nltk

    def missing(words):
        raise LookupError("averaged_perceptron_tagger_eng")

    monkeypatch.setattr(nltk, "pos_tag", missing)
    grounding.word_tagger.cache_clear()
    tagger, how = grounding.word_tagger()
    grounding.word_tagger.cache_clear()
    assert tagger is None and "lexicon" in how


def test_what_is_done_is_no_thing_by_the_name_of_a_class():
    """AudioSet has classes Roll, Run, Pour, Drum beat: none of them is meant by "waves roll" or "a drum beats"."""
    more = [
        {"id": str(n), "name": name, "child_ids": []} for n, name in enumerate(("Roll", "Run", "Pour", "Drum beat"))
    ]
    ontology = Ontology(LABELS, [*CLASSES, *more])
    assert verdicts("waves roll as rain pours and a clock runs", (), ontology) == dict.fromkeys(
        ("waves", "rain", "clock"), "silent"
    )
    assert verdicts("a drum beats", {"drum"}, ontology) == {"drum": "supported", "beats": "supported"}
