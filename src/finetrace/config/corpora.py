"""Settings of corpora: texts for masked-language-model training, from local files."""

from finetrace.config.base import require, settings


@settings
class CorpusSettings:
    """Texts of local files, one per row of `data/NAME/corpus.parquet`."""

    path: str
    """File or folder; relative to the project folder."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: name the file or folder with the texts")
