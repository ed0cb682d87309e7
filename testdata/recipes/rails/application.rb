# The smallest Rails application that has HitsController. The environment has the
# SECRET, and names the database with DATABASE_URL.

# Rack refuses a form above 4 MB. A flush of 200,000 keys has some 15 MB. Rack reads
# this variable when it is loaded, so it is set before.
LIMIT = 16 * 1024 * 1024
ENV['RACK_QUERY_PARSER_BYTESIZE_LIMIT'] = LIMIT.to_s

require 'rails'
require 'action_controller/railtie'
require 'active_record/railtie'

# Answers a body above the limit with 413. Rack would raise an error.
class BodyLimit
  def initialize(app) = @app = app

  def call(env)
    env['CONTENT_LENGTH'].to_i > LIMIT ? [413, {}, []] : @app.call(env)
  end
end

class Hits < Rails::Application
  config.load_defaults 6.1
  config.eager_load = true
  config.hits_secret = ENV['SECRET'].presence || abort('SECRET is not set')
  config.secret_key_base = SecureRandom.hex(64) # nothing is signed
  config.log_level = :warn
  config.logger = ActiveSupport::Logger.new($stdout)
  config.filter_parameters = %i[json secret]
  config.middleware.insert 0, BodyLimit
  routes.append { post '/save_hits', to: 'hits#save' }
end
