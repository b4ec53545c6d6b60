// Package controller reconciles the kinds of backstay.io. It moves no data and reads no location: it starts Jobs that run this program,
// and keeps the status of objects.
package controller
