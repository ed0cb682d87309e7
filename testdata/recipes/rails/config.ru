require_relative 'application'

Rails.application.initialize!
run Rails.application
