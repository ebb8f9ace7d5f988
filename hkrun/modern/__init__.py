"""Methods since 2018, each in one file, built on what a user's own losses and methods are built on."""
