"""``python -m gift_fairseq COMMAND``."""

from gift_fairseq.cli import main

if __name__ == "__main__":
    main()
