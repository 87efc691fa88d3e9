"""A data set on one page: what it holds, how it changes from day to day, what is odd about it.

Needs neither Spark nor torch: it reads the contract, the days' statistics files and a few columns of the samples.
"""

from pipeline.describe.dataset_summary import DatasetSummary, describe
from pipeline.describe.page import render, write_page
from pipeline.describe.sample_folder import DescribeError

__all__ = ["DatasetSummary", "DescribeError", "describe", "render", "write_page"]
