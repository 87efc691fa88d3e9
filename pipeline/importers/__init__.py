"""Importers: from the files of public data sets, as they are published, to the canonical logs."""

from pipeline.importers.import_folder import ImportRecord
from pipeline.importers.published_files import ImporterError
from pipeline.importers.registry import IMPORTERS
from pipeline.importers.run import import_logs

__all__ = ["IMPORTERS", "ImportRecord", "ImporterError", "import_logs"]
