"""A WordPiece tokenizer (Wu et al. 2016; Devlin et al. 2019) trained on texts: equal texts give equal bytes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from finetrace.errors import FinetraceError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = 1000  # the most frequent characters that become pieces, as in BERT; words with others are [UNK]
FEWEST = 2  # occurrences of a pair of pieces that may become one piece


def train_tokenizer(texts: Sequence[str], vocabulary: int, lowercase: bool, max_tokens: int) -> Any:
    """A fast tokenizer with BERT's rules for words, specials and pairs, whose pieces are learned from `texts`.

    vocabulary: its size in tokens, specials included;  lowercase: ignore case and accents;  max_tokens: its longest
    input. Raises FinetraceError when the texts do not hold as many pieces, or when their letters alone are more.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    ids = _learn(_count_words(texts, normalizer, splitter), vocabulary)
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    inner.normalizer, inner.pre_tokenizer, inner.decoder = normalizer, splitter, decoders.WordPiece(prefix="##")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", clean_up_tokenization_spaces=False)


def _count_words(texts: Sequence[str], normalizer: Any, splitter: Any) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return words


def _learn(words: Counter[str], vocabulary: int) -> dict[str, int]:
    """Piece -> id. The trainer numbers the continuations of letters in the order of a hash table, which differs at
    every run and decides ties between pairs; handed over as special tokens they have fixed numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    kept_letters = set(sorted(letters, key=lambda c: (-letters[c], c))[:LETTERS])
    known_words = sorted(word for word in words if kept_letters.issuperset(word))
    continuations = sorted({letter for word in known_words for letter in word[1:]})
    fixed_tokens = [*SPECIAL_TOKENS, *sorted(kept_letters), *(f"##{letter}" for letter in continuations)]
    if not known_words:
        raise FinetraceError("the tokenizer's texts hold no word; name another corpus")
    if vocabulary < len(fixed_tokens):
        raise FinetraceError(f"vocabulary: {vocabulary} tokens are fewer than the letters of the texts, which need "
                             f"{len(fixed_tokens)}; raise it")
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, min_frequency=FEWEST, special_tokens=fixed_tokens,
                                        show_progress=False)
    learner.train_from_iterator((word for known_word in known_words for word in [known_word] * words[known_word]),
                                trainer)
    ids = learner.get_vocab()
    if len(ids) < vocabulary:
        raise FinetraceError(f"vocabulary: {vocabulary} tokens are more than the texts hold, {len(ids)}; lower it "
                             f"to {len(ids)} or less, or name a larger corpus")
    return ids
