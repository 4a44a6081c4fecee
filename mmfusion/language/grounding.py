"""Are the words of a caption heard? Nouns and sound verbs, checked against a sound tagger's probabilities.

What a caption says of a thing's sound is its *claim*; with what the tagger hears it makes the verdict:

    claim      the caption says                                                    heard         not heard
    sounds     a sound verb ("a siren wails", "a man rings a bell"), "off screen",  supported     contradicted
               "out of sight", "unseen", "is heard", "the sound of a siren"
    silence    "a silent bell", "a bell swings silently", "without sound"           contradicted  silent
    none       the thing is only seen ("a ball bounces while ...")                  supported     silent

Heard is a label whose probability reaches its threshold. A noun that names nothing that sounds (a table) is silent. A
word is *unchecked* when there is nothing to check it by: the file has no sound, or the tagger does not know the label
that the ontology has for the word. That a thing is *seen* is never checked: a false "a ball bounces" is silent.

In "a red ball bounces while a siren wails off screen", "ball" is supported or silent, "siren" and "wails" are supported
or contradicted. A sound verb takes the label of the noun that makes the sound: among the nouns of its clause one that
the lexicon knows to make it, else the subject, else what usually makes it. A clause ends at "while", "as", "and" ...
where a new subject follows ("a bird hops and chirps" is one). A word with several labels (AudioSet: vehicle) is heard
when one of them is.

Words are tagged by nltk where its tagger data lie on the machine, else by the lexicon alone (`word_tagger` says which).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from mmfusion.language import lexicon
from mmfusion.language.ontology import Meaning, Ontology, stem
from mmfusion.language.vocab import tokenize
from mmfusion.types import THRESHOLD

Claim = Literal["sounds", "silence", "none"]
Verdict = Literal["supported", "contradicted", "silent", "unchecked"]
VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "silent")
# words -> "noun", "verb" or "" each
WordTagger = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Grounded:
    """A word of a caption, the label that it was checked by, the verdict, and the label's probability in [0, 1]."""

    word: str
    label: str | None
    verdict: Verdict
    probability: float | None


@dataclass
class Mention:
    """A noun or sound verb: where it stands, what it may be, and what the caption says of its sound."""

    place: int
    word: str
    meaning: Meaning | None
    is_verb: bool = False
    claim: Claim = "none"


@dataclass
class _Clause:
    """Places of the words (`start` to `end`), and what of them are mentions; `subjects` are among the nouns."""

    start: int
    end: int
    nouns: list[Mention] = field(default_factory=list)
    verbs: list[Mention] = field(default_factory=list)
    subjects: list[Mention] = field(default_factory=list)


def ground(
    caption: str,
    chances: Mapping[str, float] | None,
    ontology: Ontology,
    thresholds: Mapping[str, float] | None = None,
    tagger: WordTagger | None = None,
) -> list[Grounded]:
    """The nouns and sound verbs of a caption with their verdicts, in the order of the caption.

    `chances` {label: probability that it is heard}, None where there is no sound. A label without a threshold has 0.5.
    """
    return [_judge(mention, chances, thresholds or {}) for mention in read_claims(caption, ontology, tagger)]


def read_claims(caption: str, ontology: Ontology, tagger: WordTagger | None = None) -> list[Mention]:
    """What a caption mentions and claims, before anything is heard."""
    words = tokenize(caption)
    mentions = _mentions(words, ontology, tagger(words) if tagger else tag_by_lexicon(words, ontology))
    for clause in _clauses(words, mentions):
        _claim(words, clause, ontology)
    return mentions


@lru_cache(maxsize=1)
def word_tagger() -> tuple[WordTagger | None, str]:
    """nltk's tagger, or None where its data are not on the machine, and a sentence that says which it is."""
    import nltk

    try:
        nltk.pos_tag(["a", "bell", "rings"])
    except LookupError:
        return None, "words found by stems and a small lexicon (nltk's tagger data are not on this machine)"
    return tag_by_nltk, "words found by nltk's part-of-speech tagger"


def tag_by_nltk(words: Sequence[str]) -> list[str]:
    """Penn tags reduced to "noun", "verb" and ""."""
    import nltk

    return [{"NN": "noun", "VB": "verb"}.get(tag[:2], "") for _, tag in nltk.pos_tag(list(words))]


def tag_by_lexicon(words: Sequence[str], ontology: Ontology) -> list[str]:
    """Names of labels are nouns, and so is the last word of what follows an article; sound verbs need a subject."""
    tags = [""] * len(words)
    chunk: int | None = None  # the last word of an open noun phrase
    opened = False
    for place, word in enumerate(words):
        after_noun = place > 0 and (tags[place - 1] == "noun" or chunk == place - 1)
        # "a train rolls", "waves roll": what follows a noun like a verb is no thing, whatever it names.
        does = after_noun and (_looks_like_verb(word) or words[place - 1].endswith("s"))
        named = _names_thing(word, ontology) and not does
        closes = word in _CLOSED or _is_sound_verb(word) or named or (chunk is not None and _looks_like_verb(word))
        if closes and chunk is not None:
            tags[chunk], chunk, opened = "noun", None, False
        if _is_sound_verb(word):
            tags[place] = "verb" if _follows_subject(words, tags, place) else "noun"
        elif named and word not in _CLOSED:
            tags[place] = "noun"
        elif opened and not closes:
            chunk = place
        if word in lexicon.DETERMINERS:
            opened = True
        elif word not in lexicon.ADJECTIVES:
            opened = opened and chunk is not None
    if chunk is not None:
        tags[chunk] = "noun"
    return tags


_CLOSED = frozenset((*lexicon.LINKS, *lexicon.DETERMINERS, *lexicon.ADJECTIVES, *lexicon.FUNCTION_WORDS,
                     *lexicon.FRAME_WORDS, *lexicon.SILENT_WORDS, *lexicon.HEARD_WORDS))  # fmt: skip


def _follows_subject(words: Sequence[str], tags: Sequence[str], place: int) -> bool:
    """Whether a sound word is what a noun before it does, and not itself a noun ("a bark", "thunder rumbles")."""
    before = words[place - 1] if place else ""
    doubled = place + 1 < len(words) and _is_sound_verb(words[place + 1])
    return "noun" in tags[:place] and before not in (*lexicon.DETERMINERS, *lexicon.ADJECTIVES) and not doubled


def _names_thing(word: str, ontology: Ontology) -> bool:
    """Whether a word names a label as a thing: "bounces" does not, by a class Bouncing."""
    meaning = ontology.find([word])
    action = meaning is not None and meaning.name.endswith("ing") and not word.endswith("ing")
    return meaning is not None and not action and not _is_sound_verb(word)


def _looks_like_verb(word: str) -> bool:
    return word.endswith(("ing", "ed")) or (word.endswith("s") and not word.endswith("ss"))


@lru_cache(maxsize=1)
def _verbs() -> dict[str, tuple[str, ...]]:
    return {stem(verb): makers for verb, makers in lexicon.SOUND_VERBS.items()}


def _is_sound_verb(word: str) -> bool:
    return stem(word) in _verbs()


def _mentions(words: Sequence[str], ontology: Ontology, tags: Sequence[str]) -> list[Mention]:
    """The longest names first ("church bell"), then single nouns and sound verbs."""
    found: list[Mention] = []
    place = 0
    while place < len(words):
        lengths = range(min(ontology.longest, len(words) - place), 1, -1)
        length = next((n for n in lengths if _is_name(words[place : place + n], tags[place + n - 1], ontology)), 1)
        word = " ".join(words[place : place + length])
        if length > 1:
            found.append(Mention(place, word, ontology.find(words[place : place + length])))
        elif tags[place] == "verb" and _is_sound_verb(word):
            found.append(Mention(place, word, None, is_verb=True, claim="sounds"))
        elif tags[place] == "noun" and word not in _CLOSED:
            mention = Mention(place, word, ontology.find([word]))
            if _is_sound_verb(word) and stem(word) not in {stem(thing) for thing in lexicon.THINGS_TOO}:
                # "a bark", "the splash of waves": the noun is the sound.
                mention.claim, mention.meaning = "sounds", mention.meaning or _usual(word, ontology)
            found.append(mention)
        place += length
    return found


def _is_name(phrase: Sequence[str], last_tag: str, ontology: Ontology) -> bool:
    """Whether words are one name: not "drum beats", a clause; nor a class that no label hears where one of them is."""
    if not ontology.names_phrase(phrase) or (last_tag == "verb" and _looks_like_verb(phrase[-1])):
        return False
    return bool(ontology.labels_of(" ".join(phrase))) or not any(ontology.labels_of(word) for word in phrase)


def _clauses(words: Sequence[str], mentions: Sequence[Mention]) -> list[_Clause]:
    """Clauses, each with a subject of its own; what has none belongs to the clause before."""
    ends = [place for place, word in enumerate(words) if word in lexicon.LINKS] + [len(words)]
    clauses: list[_Clause] = []
    start = 0
    for end in ends:
        own = [mention for mention in mentions if start <= mention.place < end]
        nouns, verbs = [m for m in own if not m.is_verb], [m for m in own if m.is_verb]
        subjectless = not nouns or (bool(verbs) and verbs[0].place < nouns[0].place)
        if clauses and (subjectless or _is_bare(words, clauses[-1])):
            last = clauses[-1]
            last.subjects += [] if subjectless else nouns[:1]
            last.end, last.nouns, last.verbs = end, last.nouns + nouns, last.verbs + verbs
        else:
            clauses.append(_Clause(start, end, nouns, verbs, nouns[:1]))
        start = end + 1
    return clauses


def _is_bare(words: Sequence[str], clause: _Clause) -> bool:
    """A noun phrase and nothing else, as in "a dog | and a cat bark"."""
    if len(clause.nouns) != len(clause.subjects) or clause.verbs:
        return False
    inside = {place for n in clause.nouns for place in range(n.place, n.place + len(n.word.split()))}
    rest = [words[place] for place in range(clause.start, clause.end) if place not in inside]
    return bool(inside) and all(word in (*lexicon.DETERMINERS, *lexicon.ADJECTIVES, "and") for word in rest)


def _claim(words: Sequence[str], clause: _Clause, ontology: Ontology) -> None:
    """Writes into the clause's mentions what it says of their sound, and which label its verbs are heard by."""
    inside = list(words[clause.start : clause.end])
    if _holds(inside, lexicon.HEARD_PHRASES) or set(inside) & set(lexicon.HEARD_WORDS):
        _set(clause.subjects, "sounds")
    for noun in clause.nouns:
        if _holds([w for w in inside[: noun.place - clause.start] if w not in _FILLERS][-2:], lexicon.SOUND_OF):
            noun.claim = "sounds"
    for verb in clause.verbs:
        makers = _makers(verb, clause, ontology)
        usual = _usual(verb.word, ontology, by_name=bool(makers))
        verb.meaning = next((noun.meaning for noun in makers if noun.meaning), usual)
        _set(makers, "sounds")
        for noun in makers:
            noun.meaning = noun.meaning or usual
        if _is_denied(words, verb.place, clause):
            _set([verb, *makers], "silence")
    for place in range(clause.start, clause.end):
        if words[place] in lexicon.SILENT_WORDS:
            following = [n for n in clause.nouns if n.place > place and set(words[place + 1 : n.place]) <= _FILLERS]
            _set(following[:1] or clause.subjects, "silence")
        elif words[place] in ("sound", "noise") and _is_denied(words, place, clause):
            _set(clause.subjects, "silence")


_FILLERS = frozenset((*lexicon.DETERMINERS, *lexicon.ADJECTIVES))


def _makers(verb: Mention, clause: _Clause, ontology: Ontology) -> list[Mention]:
    """The nouns that make a verb's sound: the nearest that the lexicon knows to make it, else the subjects."""
    known = {label for name in _verbs()[stem(verb.word)] for label in ontology.labels_of(name)}
    fitting = [noun for noun in clause.nouns if noun.meaning and known & set(noun.meaning.labels)]
    if len(clause.subjects) > 1 or any(noun in clause.subjects for noun in fitting):
        return clause.subjects
    return sorted(fitting, key=lambda noun: abs(noun.place - verb.place))[:1] or clause.subjects


def _usual(verb: str, ontology: Ontology, by_name: bool = False) -> Meaning | None:
    """What usually makes a sound, the first that the tagger knows; `by_name` takes only the names of sounds.

    That a woman sings does not mean that a bird does, only that singing is heard.
    """
    names = [name for name in _verbs()[stem(verb)] if not by_name or name in lexicon.VOICES or stem(name) == stem(verb)]
    found = [meaning for name in names if (meaning := ontology.find(name.split()))]
    return next((meaning for meaning in found if meaning.labels), found[0] if found else None)


def _is_denied(words: Sequence[str], place: int, clause: _Clause) -> bool:
    """ "without barking", "does not ring", "no dog barks": a negation at most two words before, or before the noun."""
    for before in range(place - 1, max(place - 3, clause.start - 1), -1):
        if words[before] in lexicon.NEGATIONS or words[before].endswith("n't"):
            return True
        if any(noun.place == before for noun in clause.nouns):
            return before > clause.start and words[before - 1] == "no"
    return False


def _holds(words: Sequence[str], phrases: Sequence[Sequence[str]]) -> bool:
    return any(
        list(words[place : place + len(phrase)]) == list(phrase)
        for phrase in phrases
        for place in range(len(words) - len(phrase) + 1)
    )


def _set(mentions: Sequence[Mention], claim: Claim) -> None:
    for mention in mentions:
        mention.claim = claim


def _judge(mention: Mention, chances: Mapping[str, float] | None, thresholds: Mapping[str, float]) -> Grounded:
    meaning = mention.meaning
    if chances is None:
        return Grounded(mention.word, meaning.name if meaning else None, "unchecked", None)
    known = [label for label in meaning.labels if label in chances] if meaning else []
    if not known:
        sounds = mention.claim == "sounds" or (meaning is not None and mention.claim == "none")
        return Grounded(mention.word, meaning.name if meaning else None, "unchecked" if sounds else "silent", None)
    heard, chance, label = max((chances[one] >= thresholds.get(one, THRESHOLD), chances[one], one) for one in known)
    if mention.claim == "silence":
        return Grounded(mention.word, label, "contradicted" if heard else "silent", chance)
    quiet: Verdict = "contradicted" if mention.claim == "sounds" else "silent"
    return Grounded(mention.word, label, "supported" if heard else quiet, chance)
