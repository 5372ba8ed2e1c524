"""Parts of `fusion_claims.py`: sets of captions, the runs that learn from them, scores, table and pictures."""
