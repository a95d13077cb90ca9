# Lints (target lint).
