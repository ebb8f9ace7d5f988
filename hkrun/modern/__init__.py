"""Methods since 2019, each in one file, built on what a user's own losses and methods are built on."""
