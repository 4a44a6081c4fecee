"""Penn Treebank tokenization of captions, lower-cased and without punctuation, by pycocoevalcap's Stanford jar.

The same jar, options and punctuation list as pycocoevalcap's PTBTokenizer, so the words are the same; but fed through
a pipe (its folder may be read-only), with a deadline, and never out of step: line breaks inside a caption become
blanks, and a count of lines that is not the count of captions is an error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from mmfusion.metrics.java import find_java, scorer_file, scorer_version
from mmfusion.types import InputError

TOKENIZER_CLASS = "edu.stanford.nlp.process.PTBTokenizer"
TOKENIZER_JAR = "stanford-corenlp-3.4.1.jar"


def tokenizer_name() -> str:
    """The tokenizer's name and version, for a result's record."""
    return f"PTB (stanford-corenlp 3.4.1, {scorer_version()})"


def tokenize_captions(captions: Sequence[str], java: str | None = None, deadline_s: float = 120.0) -> list[str]:
    """Each caption as its words joined by blanks, in the same order; "" where a caption has no word.

    Raises InputError when Java cannot be had, fails, or takes longer than `deadline_s` for all of them.
    """
    if not captions:
        return []
    java = java or find_java()
    jar = scorer_file(f"tokenizer/{TOKENIZER_JAR}")
    command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), TOKENIZER_CLASS]
    command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    text = "".join(" ".join(caption.split()) + "\n" for caption in captions)
    try:
        run = subprocess.run(
            command, input=text.encode("utf-8", errors="replace"), capture_output=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"PTB tokenizer: Java at {java} did not finish within {deadline_s:g} s") from None
    except OSError as error:
        raise InputError(f"PTB tokenizer: Java at {java} cannot be started: {error.strerror or error}") from error
    lines = run.stdout.decode("utf-8", errors="replace").split("\n")[:-1]
    if run.returncode or len(lines) != len(captions):
        said = run.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise InputError(
            f"PTB tokenizer: Java at {java} gave {len(lines)} lines for {len(captions)} captions (exit status "
            f"{run.returncode}{': ' + said[-1] if said else ''})"
        )
    return [" ".join(word for word in line.split() if word not in PUNCTUATIONS) for line in lines]
