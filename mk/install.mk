# Installation (targets install, uninstall).
