from django.db import models
from django.utils import timezone


class Hit(models.Model):
    """The count of a key."""
    key = models.TextField(primary_key=True)
    count = models.BigIntegerField()


class Flush(models.Model):
    """A flush that is saved, for 7 days: one whose answer was lost comes again under its id."""
    id = models.TextField(primary_key=True)
    saved = models.DateTimeField(default=timezone.now, db_index=True)
