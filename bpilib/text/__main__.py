"""`python -m bpilib.text params/prompts/ucla.yaml ...` renews the embeddings shipped beside prompts files."""

import sys

from bpilib.text.minilm import write_embeddings

if __name__ == "__main__":
    print(*map(write_embeddings, sys.argv[1:]), sep="\n")
