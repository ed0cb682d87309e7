from django.urls import path

from .views import save_hits

urlpatterns = [path('save_hits', save_hits)]
