"""Receives the flushes of Pixel Ping and adds them up in the database."""
import json
import secrets
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import connection, transaction
from django.http import HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .models import Flush


@csrf_exempt  # the daemon is no browser: it has no token, and no cookies that anybody could use
@require_POST
def save_hits(request):
    try:
        form = request.POST
    except RequestDataTooBig:
        while request.read(1 << 16):  # a client that still sends may not see the answer
            pass
        return HttpResponse(status=413)
    if 'json' not in form or 'secret' not in form:
        return HttpResponse(status=400)
    if not constant_time_compare(form['secret'], settings.HITS_SECRET):
        return HttpResponse(status=403)
    hits = parse(form['json'])
    if hits is None:
        return HttpResponse(status=400)
    # A flush from something else than the daemon may have no id: then it is new.
    save(hits, request.headers.get('Idempotency-Key', secrets.token_hex()))
    return HttpResponse(status=204)  # after the hits are saved, not before


def parse(text):
    """Returns the keys and counts of a flush, or None if the text is invalid."""
    try:
        flush = json.loads(text)
    except (ValueError, RecursionError):  # also for a text that is nested too deep
        return None
    if type(flush) is not dict or not all(type(n) is int and 0 < n < 1 << 53 for n in flush.values()):
        return None
    # JSON allows a half of a surrogate pair, which no database can save: U+FFFD takes its place.
    return [(key.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace'), n) for key, n in flush.items()]


@transaction.atomic
def save(hits, id):
    """Adds the counts and the id of a flush. If the id is known, the flush was saved before
    and only its answer was lost: then save adds nothing."""
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute('INSERT INTO hits_flush (id, saved) VALUES (%s, %s) ON CONFLICT DO NOTHING', [id, now])
        if cursor.rowcount == 0:
            return
        cursor.executemany('INSERT INTO hits_hit (key, count) VALUES (%s, %s) '
                           'ON CONFLICT (key) DO UPDATE SET count = hits_hit.count + excluded.count', hits)
    Flush.objects.filter(saved__lt=now - timedelta(days=7)).delete()
