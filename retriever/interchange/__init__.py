"""Other systems' files of weighted terms: CIFF, and the JSON vectors of Anserini."""
