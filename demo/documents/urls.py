from django.urls import path

from documents import views

urlpatterns = [
    path("", views.documents, name="documents"),
    path("<int:number>/", views.document, name="document"),
    path("<int:number>/share/", views.share, name="document_share"),
    path("<int:number>/unshare/<int:user>/", views.unshare, name="document_unshare"),
    path("<int:number>/everyone/", views.everyone, name="document_everyone"),
    path("<int:number>/delete/", views.delete, name="document_delete"),
]
