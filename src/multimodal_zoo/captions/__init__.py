"""CapsFusion (arXiv 2310.20550): a language model fuses web captions and synthetic captions, at scale."""
