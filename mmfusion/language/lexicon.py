"""A small lexicon of English sound words: what grounding knows of a language when nothing else does.

Words stand here in any form: grounding compares stems (Porter). It is made for captions, not for literature: a verb
is in it when it says that its subject (or, "rings a bell", its object) is heard.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Sound verb -> what may make that sound, the most telling first, by names that label ontologies use. They decide which
# of a clause's nouns sounds ("a man rings a bell"), and which label is meant when no noun has one ("barking is heard").
SOUND_VERBS: dict[str, tuple[str, ...]] = {
    "applaud": ("applause", "clapping"),
    "babble": ("babbling", "speech"),
    "bang": ("bang", "door", "gunshot"),
    "bark": ("bark", "dog"),
    "beat": ("drum",),
    "beep": ("beep", "horn", "car horn"),
    "bellow": ("bellow", "cow"),
    "blare": ("siren", "horn", "music"),
    "bleat": ("bleat", "goat", "sheep"),
    "boom": ("boom", "drum", "thunder", "explosion"),
    "burp": ("burping",),
    "buzz": ("buzz", "bee", "insect"),
    "cackle": ("cackle", "chicken", "laughter"),
    "chatter": ("chatter", "speech"),
    "cheer": ("cheering", "crowd"),
    "chime": ("chime", "bell"),
    "chirp": ("chirp", "bird", "cricket"),
    "chug": ("train", "engine"),
    "clang": ("clang", "bell"),
    "clap": ("clapping", "applause"),
    "clatter": ("clatter", "helicopter"),
    "click": ("clicking", "clock"),
    "clip-clop": ("clip-clop", "horse"),
    "cluck": ("cluck", "chicken"),
    "coo": ("coo", "pigeon"),
    "cough": ("cough",),
    "crackle": ("crackle", "fire"),
    "crash": ("crash", "waves"),
    "creak": ("creak", "door"),
    "croak": ("croak", "frog"),
    "crow": ("crowing", "rooster"),
    "cry": ("crying", "baby"),
    "drum": ("drum",),
    "explode": ("explosion",),
    "giggle": ("giggle", "laughter"),
    "gobble": ("gobble", "turkey"),
    "groan": ("groan",),
    "growl": ("growling", "dog"),
    "hiss": ("hiss", "rain", "snake", "steam"),
    "honk": ("honk", "car horn", "horn", "goose"),
    "hoot": ("hoot", "owl"),
    "howl": ("howl", "siren", "dog", "wolf"),
    "hum": ("hum", "engine", "car"),
    "jingle": ("jingle", "bell"),
    "laugh": ("laughter",),
    "meow": ("meow", "cat"),
    "moan": ("moan",),
    "moo": ("moo", "cow"),
    "neigh": ("neigh", "horse"),
    "oink": ("oink", "pig"),
    "patter": ("rain",),
    "peal": ("bell",),
    "pop": ("fire",),
    "puff": ("train",),
    "purr": ("purr", "cat"),
    "quack": ("quack", "duck"),
    "rattle": ("rattle",),
    "rev": ("engine", "car", "motorcycle"),
    "ring": ("ringtone", "bell", "telephone"),
    "roar": ("roar", "car", "engine", "lion"),
    "rumble": ("rumble", "thunder", "engine"),
    "rustle": ("rustle",),
    "say": ("speech",),
    "scream": ("screaming",),
    "screech": ("screech",),
    "shout": ("shout",),
    "sing": ("singing", "bird"),
    "sizzle": ("sizzle",),
    "slam": ("slam", "door"),
    "snap": ("finger snapping",),
    "sneeze": ("sneeze",),
    "snore": ("snoring",),
    "sob": ("sobbing", "crying"),
    "speak": ("speech",),
    "splash": ("splash", "waves", "water"),
    "squeak": ("squeak",),
    "squeal": ("squeal",),
    "strum": ("strum", "guitar"),
    "talk": ("speech", "conversation"),
    "thud": ("thud", "ball"),
    "thump": ("thump", "ball", "drum"),
    "thunder": ("thunder",),
    "tick": ("tick", "clock"),
    "toll": ("church bell", "bell"),
    "toot": ("toot", "horn"),
    "trumpet": ("trumpet", "elephant"),
    "tweet": ("tweet", "bird"),
    "wail": ("wail", "siren"),
    "whimper": ("whimper", "dog"),
    "whir": ("whir", "helicopter"),
    "whirr": ("whir", "helicopter"),
    "whisper": ("whispering",),
    "whistle": ("whistling", "whistle"),
    "yell": ("yell",),
    "yelp": ("yip", "dog"),
}

# Sound words that are as often the name of a thing: after an article they are that thing.
THINGS_TOO = ("drum", "trumpet", "whistle", "crow", "rattle", "ring")

# Names of sounds that people make, whatever the people are called.
VOICES = ("speech", "conversation", "laughter", "applause", "clapping", "shout", "yell")

# Noun -> other names under which a label may be known.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "ambulance": ("siren",),
    "automobile": ("car",),
    "baby": ("baby cry", "crying baby"),
    "bike": ("bicycle", "motorcycle"),
    "boat": ("boat", "ship"),
    "bonfire": ("fire",),
    "campfire": ("fire",),
    "chopper": ("helicopter",),
    "crowd": ("crowd", "cheering"),
    "downpour": ("rain",),
    "flame": ("fire",),
    "gun": ("gunshot", "gun shot"),
    "hen": ("chicken",),
    "kitten": ("cat",),
    "locomotive": ("train",),
    "lorry": ("truck",),
    "motorbike": ("motorcycle",),
    "ocean": ("waves", "sea waves"),
    "phone": ("telephone",),
    "plane": ("airplane", "aircraft"),
    "puppy": ("dog",),
    "sea": ("waves", "sea waves"),
    "surf": ("waves",),
    "vehicle": ("car", "truck", "bus", "motorcycle"),
}

# What ties clauses together, and what stands in them beside nouns and verbs.
LINKS = ("while", "whilst", "as", "and", "then", "but", "when")
DETERMINERS = _words("a an the one two three four five some several many another his her its their my your no")
ADJECTIVES = _words(
    "red green blue yellow orange pink purple black white brown grey gray big small large little tiny huge young old "
    "loud quiet distant unseen silent muted"
)
FUNCTION_WORDS = _words(
    "is are was were be been being am has have had do does did can will to of in on at by with from into onto over "
    "under up down out off near through around across behind beside between for about against along after before it "
    "he she they him them there that which who this these those not never without or so very if not"
)
# Words that speak of the picture or the sound track, never of a thing in the scene.
FRAME_WORDS = ("screen", "sight", "sound", "noise", "background", "foreground", "distance", "camera", "video", "scene")

SILENT_WORDS = ("silent", "silently", "soundless", "soundlessly", "noiselessly", "mute", "muted")
NEGATIONS = ("no", "not", "never", "without")
HEARD_WORDS = ("unseen", "offscreen", "off-screen", "audible", "heard", "hear", "hears")
HEARD_PHRASES = (("off", "screen"), ("out", "of", "sight"))
SOUND_OF = (("sound", "of"), ("sounds", "of"), ("noise", "of"))
