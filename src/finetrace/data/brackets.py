"""Phrase-structure trees in brackets, as treebanks write them: (S (NP (DT the) (NN cat)) (VP (VBD slept)))."""

import re
from dataclasses import dataclass, field

from finetrace.errors import FinetraceError

_PIECE = re.compile(r"[()]|[^\s()]+")
_NOUNS = ("NN", "NNS", "NNP", "NNPS", "NP", "NX", "PRP", "CD", "EX", "WP", "DT", "JJ", "QP", "NAC")


@dataclass
class Tree:
    """A phrase, or a word with its tag."""

    label: str
    start: int
    """Its first word, from 0; traces count."""
    end: int = 0
    """The word after its last."""
    word: str | None = None
    """The word itself, of a word with its tag."""
    children: list["Tree"] = field(default_factory=list)

    @property
    def leaves(self) -> list["Tree"]:
        """Words with their tags, from left to right."""
        return [self] if self.word is not None else [leaf for child in self.children for leaf in child.leaves]


def read_trees(text: str, where: str) -> list[Tree]:
    """The trees of a file (`.mrg` of the Penn Treebank), in order.

    text: the file's content;  where: its name for messages. Raises FinetraceError where brackets do not fit.
    """
    trees: list[Tree] = []
    stack: list[Tree] = []
    place = 0
    pieces = _PIECE.findall(text)
    for i, piece in enumerate(pieces):
        if piece == "(":
            if not stack:
                place = 0
            label = pieces[i + 1] if i + 1 < len(pieces) and pieces[i + 1] not in "()" else ""
            stack.append(Tree(label, place))
        elif piece == ")":
            if not stack:
                raise FinetraceError(f"{where}: tree {len(trees) + 1}: a bracket closes that none opens; mend the file")
            node = stack.pop()
            node.end = place
            if node.word is None and not node.children:
                raise FinetraceError(f"{where}: tree {len(trees) + 1}: the bracket ({node.label}) holds "
                                     "nothing; mend the file")
            if stack:
                stack[-1].children.append(node)
            else:
                trees.append(node)
        elif not stack:
            raise FinetraceError(f"{where}: {piece!r} after tree {len(trees)} stands in no bracket; is "
                                 "this a file of trees?")
        elif pieces[i - 1] != "(":
            if stack[-1].word is not None or stack[-1].children:
                raise FinetraceError(f"{where}: tree {len(trees) + 1}: {piece!r} is a second thing in the bracket of "
                                     f"{stack[-1].label}; a word has a bracket of its own")
            stack[-1].word = piece
            place += 1
    if stack:
        raise FinetraceError(f"{where}: tree {len(trees) + 1} is not closed; is the file cut off?")
    return trees


def head_word(tree: Tree) -> int:
    """The word that stands for a phrase, from 0: of a clause or verb phrase its verb, of a prepositional phrase its
    noun, else the last noun of the phrase's own, else its last word.
    Traces stand for nothing where there is something else."""
    while tree.word is None:
        children = [c for c in tree.children if any(leaf.label != "-NONE-" for leaf in c.leaves)] or tree.children
        kinds = [re.split(r"[-=|]", child.label)[0] for child in children]
        if tree.label.startswith(("S", "VP")):
            heads = [i for kind in ("VP", "S", "SINV", "SQ") for i, child_kind in enumerate(kinds)
                     if child_kind == kind]
            heads = heads or [i for i, kind in enumerate(kinds) if kind.startswith(("VB", "MD"))]
            best = heads[0] if heads else len(children) - 1
        elif tree.label.startswith("PP"):
            best = next((i for i, kind in enumerate(kinds) if kind in ("NP", "S", "SBAR", "PP")), len(children) - 1)
        else:
            end = next((i for i, kind in enumerate(kinds) if i and kind in ("PP", "SBAR", "VP", ",", ":")), len(kinds))
            nouns = [i for i, kind in enumerate(kinds[:end]) if kind in _NOUNS[:8]]
            nouns = nouns or [i for i, kind in enumerate(kinds[:end]) if kind in _NOUNS]
            best = nouns[-1] if nouns else end - 1
        tree = children[best]
    return tree.start


def at_height(tree: Tree, word: int, height: int) -> Tree:
    """PropBank's address of a phrase: `height` steps up from the word with that number.
    Raises ValueError where there is none."""
    path = [tree]
    while path[-1].word is None:
        inner = next((child for child in path[-1].children if child.start <= word < child.end), None)
        if inner is None:
            raise ValueError(f"the tree has no word {word}")
        path.append(inner)
    if not 0 <= height < len(path):
        raise ValueError(f"{height} steps up from word {word} lead out of the tree")
    return path[-1 - height]
