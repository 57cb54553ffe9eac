"""How the tiny model is trained from scratch, stage by stage; every stage resumes where it stopped. See README.md."""
