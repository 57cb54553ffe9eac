"""How the tiny model is made, from nothing, stage by stage; every stage resumes where it stopped. See README.md."""
