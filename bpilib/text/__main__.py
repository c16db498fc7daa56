"""`python -m bpilib.text params/prompts/ucla.yaml ...` renews the embeddings shipped beside prompts files."""

import argparse

from bpilib.text.minilm import write_embeddings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m bpilib.text", description="Renew the embeddings shipped beside prompts files."
    )
    parser.add_argument("prompts", nargs="*", help="YAML files, such as params/prompts/ucla.yaml")
    print(*map(write_embeddings, parser.parse_args().prompts), sep="\n")
