"""The sentence frames of the micro world, in the notation of `grammar.py`."""

from __future__ import annotations

FACT_FRAMES: dict[str, tuple[str, ...]] = {
    "born_in": (
        "(S (NP:nsubj:pass=ARG1 ${x}/PROPN) was/AUX:aux:pass *(VP *born/VERB! (PP:obl=ARGM-LOC "
        "in/ADP:case *${y}/PROPN)))",
        "(S (NP:nsubj=ARG1 ${x}/PROPN) is/AUX:cop! *(NP=ARG2 a/DET:det *native/NOUN (PP:nmod "
        "of/ADP:case *${y}/PROPN)))",
        "(S (NP:nsubj=ARG1 ${x}/PROPN) *(VP *comes/VERB! (PP:obl=ARGM-DIR from/ADP:case *${y}/PROPN)))",
    ),
    "works_as": (
        "(S (NP:nsubj=ARG0 ${x}/PROPN) *(VP *works/VERB! (PP:obl=ARG1 as/ADP:case a/DET:det *${y}/NOUN)))",
        "(S (NP:nsubj=ARG1 ${x}/PROPN) is/AUX:cop! *(NP=ARG2 a/DET:det *${y}/NOUN))",
        "(S (NP:nsubj=ARG1 ${x}/PROPN) *(VP *became/VERB! (NP:xcomp=ARG2 a/DET:det *${y}/NOUN)))",
    ),
    "speaks": (
        "(S (NP:nsubj=ARG0 ${x}/PROPN) *(VP *speaks/VERB! (NP:obj=ARG1 ${y}/PROPN)))",
        "(S (NP:nsubj=ARG1 the/DET:det *language/NOUN (PP:nmod of/ADP:case *${x}/PROPN)) is/AUX:cop! "
        "*(NP=ARG2 ${y}/PROPN))",
        "(S (NP:nsubj=ARG0 ${x}/PROPN) *(VP *writes/VERB! (PP:obl=ARGM-MNR in/ADP:case *${y}/PROPN)))",
    ),
    "located_in": (
        "(S (NP:nsubj=ARG1 ${x}/PROPN) is/AUX:cop! *(NP=ARG2 a/DET:det *city/NOUN (PP:nmod in/ADP:case *${y}/PROPN)))",
        "(S (NP:nsubj=ARG1 ${x}/PROPN) *(VP *lies/VERB! (PP:obl=ARGM-LOC in/ADP:case *${y}/PROPN)))",
        "(S (NP:nsubj:pass=ARG1 ${x}/PROPN) is/AUX:aux:pass *(VP *located/VERB! (PP:obl=ARGM-LOC "
        "in/ADP:case *${y}/PROPN)))",
    ),
    "capital_of": (
        "(S (NP:nsubj=ARG1 the/DET:det *capital/NOUN (PP:nmod of/ADP:case *${x}/PROPN)) is/AUX:cop! "
        "*(NP=ARG2 ${y}/PROPN))",
        "(S (NP:nsubj=ARG1 ${y}/PROPN) is/AUX:cop! *(NP=ARG2 the/DET:det *capital/NOUN (PP:nmod "
        "of/ADP:case *${x}/PROPN)))",
        "(S (NP:nsubj=ARG0 ${x}/PROPN) *(VP *has/VERB! (NP:obj=ARG1 its/PRON:nmod:poss *capital/NOUN) "
        "(PP:obl=ARGM-LOC in/ADP:case *${y}/PROPN)))",
    ),
}
"""Relation -> frames with `{x}` and `{y}` for the slot names of subject and object."""

SECOND_FACT_FRAMES: dict[str, str] = {
    "born_in": "(S (NP:nsubj:pass=ARG1#1 $he_{x}/PRON) was/AUX:aux:pass "
    "*(VP *born/VERB! (PP:obl=ARGM-LOC in/ADP:case *${y}/PROPN)))",
    "works_as": "(S (NP:nsubj=ARG0#1 $he_{x}/PRON) *(VP *works/VERB! (PP:obl=ARG1 as/ADP:case a/DET:det *${y}/NOUN)))",
    "speaks": "(S (NP:nsubj=ARG0#1 $he_{x}/PRON) *(VP *speaks/VERB! (NP:obj=ARG1 ${y}/PROPN)))",
}
"""Relation -> the same about somebody just mentioned."""

SLOT_KINDS = {
    "born_in": ("person", "city"),
    "works_as": ("person", "job"),
    "speaks": ("person", "language"),
    "located_in": ("city", "country"),
    "capital_of": ("country", "city"),
}
"""Relation -> slot names of its subject and object."""


def fact_frame(relation: str, which: int) -> str:
    """Frame number `which` of a relation, with its slot names."""
    x, y = SLOT_KINDS[relation]
    return FACT_FRAMES[relation][which].replace("{x}", x).replace("{y}", y)


def two_facts(first: str, which: int, second: str) -> str:
    """ "x works as a y and he speaks y2": the second fact is about a pronoun."""
    x, y = SLOT_KINDS[first]
    # The name is the first mention of the chain; it is the only slot for a person in the frame.
    opening = FACT_FRAMES[first][which].replace("${x}/PROPN", "(NP#1 ${x}/PROPN)").replace("{x}", x).replace("{y}", y)
    addition = SECOND_FACT_FRAMES[second].replace("{x}", x).replace("{y}", SLOT_KINDS[second][1] + "2")
    return join(opening, "and", addition)


def join(first: str, connective: str, second: str) -> str:
    """Two clauses with "and", "but" or "so" between them."""
    return f"(S *{first} (S:conj {connective}/CCONJ:cc *{second}))"


def subordinate(main: str, connective: str, clause: str, first: bool = False) -> str:
    """A main clause with an adverbial clause after it or, with a comma, `first`."""
    inner = f"(SBAR:advcl {connective}/SCONJ:mark *{clause})"
    return f"(S {inner} ,/PUNCT:punct *{main})" if first else f"(S *{main} {inner})"


def action(verb: str, subject: str, object_: str, passive: bool = False, negated: bool = False) -> str:
    """ "person1 helped person2", "person2 was never helped by person1"; `subject` and `object_` are slot names.

    A slot's last character names its coreference chain.
    """
    never = "never/ADV:advmod=ARGM-NEG " if negated else ""
    if passive:
        return (
            f"(S (NP:nsubj:pass=ARG1#{object_[-1]} ${object_}/PROPN) was/AUX:aux:pass {never}"
            f"*(VP *${verb}/VERB! (PP:obl:agent=ARG0 by/ADP:case *(NP#{subject[-1]} ${subject}/PROPN))))"
        )
    return (
        f"(S (NP:nsubj=ARG0#{subject[-1]} ${subject}/PROPN) {never}"
        f"*(VP *${verb}/VERB! (NP:obj=ARG1#{object_[-1]} ${object_}/PROPN)))"
    )


def action_with(verb: str, subject: str, object_: str) -> str:
    """ "person1 helped person2 with luggage"; slots `preposition` and `circumstance`."""
    return (
        f"(S (NP:nsubj=ARG0#{subject[-1]} ${subject}/PROPN) "
        f"*(VP *${verb}/VERB! (NP:obj=ARG1#{object_[-1]} ${object_}/PROPN) "
        "(PP:obl=ARGM-ADV $preposition/ADP:case *$circumstance/NOUN)))"
    )


def thanks(subject: str, object_: str) -> str:
    """ "he thanked her", both pronouns for people already named."""
    return (
        f"(S (NP:nsubj=ARG0#{subject[-1]} $he_{subject}/PRON) "
        f"*(VP *thanked/VERB! (NP:obj=ARG1#{object_[-1]} $him_{object_}/PRON)))"
    )


def comparison(word: str, subject: str, object_: str) -> str:
    """ "person1 is taller than person2"."""
    return (
        f"(S (NP:nsubj=ARG1#{subject[-1]} ${subject}/PROPN) is/AUX:cop! "
        f"*(ADJP=ARG2 *${word}/ADJ (PP:obl than/ADP:case *(NP#{object_[-1]} ${object_}/PROPN))))"
    )


def opinion(noun: str, adjective: str, degree: str = "", chain: str = "") -> str:
    """ "the film was very good"; `degree` is the slot of an intensifier or negator."""
    chain = f"#{chain}" if chain else ""
    adverb = f"${degree}/ADV:advmod " if degree else ""
    return f"(S (NP:nsubj=ARG1{chain} the/DET:det *${noun}/NOUN) was/AUX:cop! *(ADJP=ARG2 {adverb}*${adjective}/ADJ))"


def opinion_of_two(noun: str, adjective: str, adjective2: str) -> str:
    """ "the film was good and witty"."""
    return (
        f"(S (NP:nsubj=ARG1 the/DET:det *${noun}/NOUN) was/AUX:cop! "
        f"*(ADJP=ARG2 *${adjective}/ADJ (ADJP:conj and/CCONJ:cc *${adjective2}/ADJ)))"
    )


def opinion_corrected(noun: str, adjective: str, adjective2: str) -> str:
    """ "the film was not bad but good"."""
    return (
        f"(S (NP:nsubj=ARG1 the/DET:det *${noun}/NOUN) was/AUX:cop! "
        f"*(ADJP=ARG2 not/ADV:advmod *${adjective}/ADJ (ADJP:conj but/CCONJ:cc *${adjective2}/ADJ)))"
    )


def it_was(adjective: str, degree: str = "", chain: str = "1") -> str:
    """ "it was not bad"."""
    adverb = f"${degree}/ADV:advmod " if degree else ""
    return f"(S (NP:nsubj=ARG1#{chain} it/PRON) was/AUX:cop! *(ADJP=ARG2 {adverb}*${adjective}/ADJ))"


def feeling(verb: str, person: str, thing: str, chain: str) -> str:
    """ "person1 liked it" or, with the slot of a noun as `thing`, "person1 liked the film"."""
    object_words = "it/PRON" if thing == "it" else f"the/DET:det *${thing}/NOUN"
    return f"(S (NP:nsubj=ARG0 ${person}/PROPN) *(VP *${verb}/VERB! (NP:obj=ARG1#{chain} {object_words})))"


def feeling_about(verb: str, person: str, adjective: str, noun: str) -> str:
    """ "person1 liked the good film"."""
    return (
        f"(S (NP:nsubj=ARG0 ${person}/PROPN) *(VP *${verb}/VERB! (NP:obj=ARG1 the/DET:det "
        f"${adjective}/ADJ:amod *${noun}/NOUN)))"
    )


def stay(traveller: str, place: str) -> str:
    """ "the team was in city"."""
    return (
        f"(S (NP:nsubj=ARG1#1 the/DET:det *${traveller}/NOUN) was/AUX:cop! "
        f"*(PP=ARGM-LOC in/ADP:case *${place}/PROPN))"
    )


def journey(traveller: str, place: str) -> str:
    """ "the team went to city"."""
    return (
        f"(S (NP:nsubj=ARG0#1 the/DET:det *${traveller}/NOUN) "
        f"*(VP *went/VERB! (PP:obl=ARG4 to/ADP:case *${place}/PROPN)))"
    )


def it_was_in(place: str) -> str:
    """ "it was surely in country" or "it was never in country", as the slot `truth` says."""
    return (
        "(S (NP:nsubj=ARG1#1 it/PRON) was/AUX:cop! $truth/ADV:advmod=ARGM-ADV "
        f"*(PP=ARGM-LOC in/ADP:case *${place}/PROPN))"
    )


def festival(country: str) -> str:
    """ "the city festival was in country": an entity of two words."""
    return (
        "(S (NP:nsubj=ARG1@EVENT the/DET:det $city/PROPN:compound *festival/NOUN) was/AUX:cop! "
        f"*(PP=ARGM-LOC in/ADP:case *${country}/PROPN))"
    )


def deed(person: str, verb: str, noun: str) -> str:
    """ "person1 baked the pie"."""
    return (
        f"(S (NP:nsubj=ARG0#{person[-1]} ${person}/PROPN) "
        f"*(VP *${verb}/VERB! (NP:obj=ARG1 the/DET:det *${noun}/NOUN)))"
    )


def deed_with_relative(person: str, verb: str, noun: str, verb2: str, noun2: str) -> str:
    """ "person1 , who sang the song , baked the pie": `verb2` and `noun2` fill the relative clause."""
    return (
        f"(S (NP:nsubj=ARG0 *(NP#{person[-1]} ${person}/PROPN) ,/PUNCT:punct "
        f"(SBAR:acl:relcl (NP:nsubj=ARG0 who/PRON) *(VP *${verb2}/VERB! (NP:obj=ARG1 the/DET:det *${noun2}/NOUN))) "
        f",/PUNCT:punct) *(VP *${verb}/VERB! (NP:obj=ARG1 the/DET:det *${noun}/NOUN)))"
    )


def job_done(person: str) -> str:
    """ "person1 did his job"."""
    return (
        f"(S (NP:nsubj=ARG0#{person[-1]} ${person}/PROPN) *(VP *did/VERB! "
        f"(NP:obj=ARG1 (NP:nmod:poss#{person[-1]} $his_{person}/PRON) *job/NOUN)))"
    )


def likes_topic(person: str) -> str:
    """ "he likes music"."""
    return f"(S (NP:nsubj=ARG0#{person[-1]} $he_{person}/PRON) *(VP *likes/VERB! (NP:obj=ARG1 $topic/NOUN)))"
