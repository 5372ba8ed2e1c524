"""What answers fusion prompts: language models in this process, behind a server, or rules."""
