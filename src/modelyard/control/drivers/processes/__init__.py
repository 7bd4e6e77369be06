"""Units and tasks as processes of this machine, supervised, bounded and never outliving their parent."""
