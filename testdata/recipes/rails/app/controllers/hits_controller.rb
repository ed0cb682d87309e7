# Receives the flushes of Pixel Ping and adds them up in SQLite.
class HitsController < ActionController::Base
  # SQLite has one writer at a time. A thread that waited for it in SQLite would stop all
  # threads of Ruby, also the one that it waits for.
  WRITER = Mutex.new

  skip_forgery_protection # the daemon is no browser: it has no token, and no cookies that anybody could use

  def save
    json, secret = request.POST.values_at('json', 'secret')
    return head 400 unless json.is_a?(String) && secret.is_a?(String)
    return head 403 unless ActiveSupport::SecurityUtils.secure_compare(secret, Rails.configuration.hits_secret)
    hits = parse(json) or return head 400
    # A flush from something else than the daemon may have no id: then it is new.
    WRITER.synchronize { add(hits, request.headers['Idempotency-Key'] || SecureRandom.hex) }
    head 204 # after the hits are saved, not before
  end

  private

  # Returns the counts by key, or nil if the text is invalid. JSON allows a half of a
  # surrogate pair, which Ruby refuses: U+FFFD takes its place.
  def parse(json)
    escape = /\\ud[89ab]\h\h\\ud[c-f]\h\h|\\ud[89a-f]\h\h|\\./i
    hits = JSON.parse(json.gsub(escape) { |found| found.length == 6 ? '\ufffd' : found })
    hits if hits.is_a?(Hash) && hits.values.all? { |n| n.is_a?(Integer) && n.between?(1, 2**53 - 1) }
  rescue JSON::ParserError
    nil
  end

  # Adds the counts and the id of a flush in one transaction. If the id is known, the
  # flush was saved before and only its answer was lost: then it adds nothing.
  def add(hits, id)
    ActiveRecord::Base.transaction do
      database = ActiveRecord::Base.connection.raw_connection
      database.execute('INSERT OR IGNORE INTO flushes (id, saved) VALUES (?, unixepoch())', [id])
      next if database.changes.zero?
      sum = database.prepare('INSERT INTO hits (key, count) VALUES (?, ?)
        ON CONFLICT (key) DO UPDATE SET count = count + excluded.count')
      hits.each { |key, count| sum.execute(key, count) }
      sum.close
      database.execute("DELETE FROM flushes WHERE saved < unixepoch('now', '-7 days')")
    end
  end
end
