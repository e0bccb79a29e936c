"""The jobs a command or a program starts, one file each."""
