# The environment has the SECRET in the configuration of the daemon, and the file of
# the DATABASE.
import os
import secrets

HITS_SECRET = os.environ['SECRET'] or exit('SECRET is empty')

# Django's default is 2.5 MB. A flush of 200,000 keys has some 15 MB.
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024

DATABASES = {'default': {
    'ENGINE': 'django.db.backends.sqlite3',
    'NAME': os.environ['DATABASE'],
    'OPTIONS': {'timeout': 30},  # seconds that a flush waits for another one
}}

# The host of the endpoint in the configuration of the daemon.
ALLOWED_HOSTS = ['127.0.0.1', 'localhost']

INSTALLED_APPS = ['hits']
MIDDLEWARE = ['django.middleware.common.CommonMiddleware', 'django.middleware.csrf.CsrfViewMiddleware']
ROOT_URLCONF = 'hits.urls'
SECRET_KEY = secrets.token_hex()  # nothing is signed
USE_TZ = True
